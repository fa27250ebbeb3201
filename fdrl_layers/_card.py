"""The README.md beside saved weights, which the Hugging Face Hub shows as the model card."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

CARD = """---
library_name: fdrl-layers
pipeline_tag: {task}
{license}
tags:
- facial-expression-recognition
- fdrl
---

# {kind}

{what} of FDRL, *Feature Decomposition and Reconstruction Learning for Effective Facial Expression
Recognition* (Ruan et al., CVPR 2021), made with fdrl-layers {version}.

```python
from fdrl_layers import {kind}

model = {kind}.from_pretrained({call})
```

{classes}

## How it was trained

*To be filled in: the faces, their licence, the protocol and the accuracy on which split.*

## Responsible use

The classes name what annotators saw in a face. They are no measure of what a person feels. Labels and
faces carry the bias of those who collected them: measure the errors for each group of people on whom the
model is to be used, ask them first, and mind that laws forbid emotion recognition in some places.

## Options

```json
{options}
```
"""

WHAT = {
    "FDRLHead": "A head, to be put on a backbone that gives vectors of {in_features},",
    "FDRLModel": "A backbone with a head, from images to expressions,",
}


def model_card(
    config: Mapping[str, Any],
    classes: Sequence[str] | None = None,
    license: str | None = None,
    needs: Sequence[str] = (),
) -> str:
    """Return the text of a card; what only the author can know is left to be filled in."""
    kind = config["architectures"][0]
    given = "".join(f", {name}=..." for name in needs)
    options = {name: value for name, value in config.items() if name != "backbone_options"}
    return CARD.format(
        kind=kind,
        what=WHAT[kind].format(**config),
        task="image-classification" if kind == "FDRLModel" else "other",
        version=config["fdrl_layers_version"],
        license=f"license: {license}" if license else "# license: to be chosen by the author",
        call=f'"FOLDER-OR-NAME"{given}',
        classes=_classes(classes),
        options=json.dumps(options, indent=2),
    )


def _classes(classes: Sequence[str] | None) -> str:
    if classes is None:
        return "The names of its classes were not given when it was saved."
    return "Its classes, in the order of the logits: " + ", ".join(classes) + "."
