"""HTML pages that need no other file: style, scripts, pictures and data lie inside, nothing is fetched.

A page extends `templates/page.html`.  It allows itself (Content-Security-Policy) its own style and script and pictures
within it, and nothing else.  Templates escape every value; data for a script is JSON in which no element can end.
"""

import base64
import hashlib
from functools import cache

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = "templates"
"""The folder of a package in which its templates, styles and scripts lie."""


def render_page(
    package: str, template: str, *, title: str, style: str, scripts: tuple[str, ...], **values: object
) -> str:
    """Return the text of a page.

    package: name of the package in whose `templates` the files lie; template, style, scripts: names of files there;
    values: what the template shows, as plain text and data.
    """
    own_style, own_script = source(package, style), "".join(source(package, script) for script in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allowed(own_style)}; script-src {_allowed(own_script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    # The project's own files are the only text that is not escaped: a style and a script hold no entities.
    return environment(package).get_template(template).render(
        values | {"title": title, "policy": policy, "style": Markup(own_style), "script": Markup(own_script)}
    )  # fmt: skip


@cache
def environment(package: str) -> Environment:
    """The templates of a package, and behind them those that all pages share."""
    loaders = [PackageLoader(name, TEMPLATES) for name in dict.fromkeys((package, "timesformer"))]
    made = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["base64"] = lambda content: base64.b64encode(content).decode()
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}  # for the filter tojson
    return made


@cache
def source(package: str, name: str) -> str:
    """The text of a file among a package's templates, as it is."""
    made = environment(package)
    assert made.loader is not None
    return made.loader.get_source(made, name)[0]


def _allowed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
