"""The paper's tables and figures: one short module each in `artefacts/`, found by being there.

`registry` lists and loads them, `reproduce` makes them, `artefact` says what one is. Published values stand in
`timesformer_experiments/report/values.yaml`.
"""
