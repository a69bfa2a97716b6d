#!/bin/bash
# The eight jobs of a researcher's first day, from the installed package alone, in an empty folder; tiny, so that it ends
# in minutes. Run by tests/test_first_day.py.
set -eu
job() { echo "job $1: $2" >&2; }

timesformer --version
timesformer probe motion --out videos --num-train 16 --num-test 8
video=$(ls videos/motion*/test/*.mp4 videos/test/*.mp4 2>/dev/null | head -1)
model='{num_frames: 2, image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}'

job 1 "a scheme of one's own: declared, counted, drawn, trained, and loaded again"
cat > rows.py <<'PYTHON'
from timesformer.attention import ALL, EACH, Encoder, Partition, Scheme, Step

rows = Step("rows", (Partition(t=ALL, h=EACH, w=ALL),), cls="global")
space = Step("space", (Partition(t=EACH, h=ALL, w=ALL),), cls="replicated")
SCHEMES = [Scheme("my_rows", (Encoder(block=((rows,), (space,))),))]
PYTHON
timesformer cost --attention my_rows --scheme-file rows.py --num-frames 2 --image-size 32 --out rows.csv --out rows.tex
timesformer draw my_rows --scheme-file rows.py --out rows.png
cat > own.yaml <<YAML
name: own
scheme_file: rows.py
data: {probe: motion, num_train: 16, num_test: 8}
model: {attention: my_rows, num_frames: 2, image_size: 32, patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}
recipe: {steps: 3, batch_size: 4}
YAML
timesformer train own.yaml
own=$(timesformer runs runs --json | python -c 'import json, sys; print(json.load(sys.stdin)["runs"][0]["folder"])')
if timesformer predict "$video" --checkpoint "$own/model" 2> refused; then exit 11; fi
grep -q -- --trust refused
timesformer predict "$video" --checkpoint "$own/model" --trust
timesformer features "$video" --checkpoint "$own/model" --scheme-file rows.py --out features.npz
timesformer predict "$video" --checkpoint own.yaml

job 2 "a sweep: planned, run, watched, reported"
cat > sweep.yaml <<YAML
name: first
base:
  data: {probe: motion, num_train: 16, num_test: 8}
  model: $model
  recipe: {steps: 3, batch_size: 4}
  protocol: clip
axes:
  model.attention: [space, divided]
  seed: [0, 1]
measure: [accuracy, params, macs]
YAML
timesformer sweep sweep.yaml --out runs/first --dry-run
timesformer sweep sweep.yaml --out runs/first
timesformer status runs/first
timesformer runs runs/first
timesformer report runs/first --latex table.tex --columns attention,top1_percent,params
grep -q toprule table.tex
test -s runs/first/report.html

job 3 "the sweep's results in a notebook's cell"
python - <<'PYTHON'
from timesformer_experiments import load_results

frame = load_results("runs/first")
print(frame.pivot_table("top1_percent", "model.attention", "seed", observed=True))
assert len(frame) == 4
PYTHON

job 4 "where a model looks"
timesformer attend "$video" --checkpoint own.yaml --out look
test -s look/explorer.html

job 5 "fine-tuning on one's own classes"
for part in train test; do
  for name in up down; do mkdir -p clips/$part/$name; done
  number=0
  for file in $(find videos -path "*/$part/*.mp4" | sort | head -8); do
    number=$((number + 1))
    if [ $((number % 2)) = 0 ]; then cp "$file" clips/$part/up/; else cp "$file" clips/$part/down/; fi
  done
done
cat > tune.yaml <<YAML
name: tune
scheme_file: rows.py
init_from: $own/model
data: {format: folder, train: clips/train, test: clips/test}
recipe: {steps: 2, batch_size: 4}
YAML
timesformer train tune.yaml
timesformer predict clips/test --checkpoint tune.yaml

job 6 "another backbone"
cat > cnn.yaml <<YAML
name: cnn
data: {probe: motion, num_train: 16, num_test: 8}
model: {baseline: c2d, num_frames: 2, image_size: 32, width: 8, blocks: [1, 1, 1, 1]}
recipe: {steps: 2, batch_size: 4}
YAML
timesformer train cnn.yaml
timesformer evaluate cnn.yaml

job 7 "planning for a cluster"
timesformer cost --attention divided --num-frames 2 --image-size 32 --gpu h100 --precision bf16 --epochs 15 --videos 240000
timesformer sweep sweep.yaml --out runs/planned --dry-run --gpu a100 --mfu 0.3 --price 2 --json > plan.json
python -c 'import json; assert json.load(open("plan.json"))["gpu_hours"]["gpu_hours"] > 0'

job 8 "plain PyTorch"
VIDEO="$video" python - <<'PYTHON'
import os

import torch

from timesformer import TimeSformer, TimeSformerConfig
from timesformer.data import Preprocessing

record = Preprocessing(num_frames=2, short_side=32, crop=32)
sizes = {"num_frames": 2, "image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
model = TimeSformer(TimeSformerConfig(attention="joint", num_classes=2, **sizes))
clip = model.processor(os.environ["VIDEO"], preprocessing=record)
optimiser = torch.optim.AdamW(model.parameters())
for _ in range(2):
    loss = torch.nn.functional.cross_entropy(model(clip), torch.tensor([1]))
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()
model.save_pretrained("plain", labels=["no", "yes"], preprocessing=record)
print(TimeSformer.from_pretrained("plain").predict(os.environ["VIDEO"]))
PYTHON
test -s plain/README.md
echo "eight jobs done"
