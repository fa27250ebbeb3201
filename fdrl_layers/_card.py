"""The README.md saved with the weights, which the Hugging Face Hub shows as the model card."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

CARD = """---
library_name: fdrl-layers
pipeline_tag: image-classification
{license}
tags:
- facial-expression-recognition
- fdrl
---

# {kind}

From {start} to {number} expressions, by FDRL: *Feature Decomposition and
Reconstruction Learning for Effective Facial Expression Recognition* (Ruan et al., CVPR 2021). Made
with fdrl-layers {version}.

```python
from fdrl_layers import {kind}

model = {kind}.from_pretrained("FOLDER-OR-NAME"{given})
```

{classes}

## How it was trained

*To be filled in: the faces, their licence, the protocol and the accuracy on which split.*

## Responsible use

The classes name what annotators saw in a face; they do not say what a person feels. Faces and
labels carry the bias of their collection: before any use, measure the errors for each group of
people concerned, have their consent, and know the law, which forbids some uses of emotion
recognition.

## Options

```json
{options}
```
"""


def model_card(
    config: Mapping[str, Any],
    number: int,
    classes: Sequence[str] | None = None,
    license: str | None = None,
    needs: Sequence[str] = (),
) -> str:
    """Return the text of a model card, with blanks for what only the author knows."""
    kind = config["architectures"][0]
    takes_images = "backbone" in config
    options = {name: value for name, value in config.items() if name != "backbone_options"}
    return CARD.format(
        kind=kind,
        start="images of faces" if takes_images else "the feature of a face that a backbone gives",
        number=number,
        version=config["fdrl_layers_version"],
        license=f"license: {license}" if license else "# license: to be chosen by the author",
        given="".join(f", {name}=..." for name in needs),
        classes=_classes(classes),
        options=json.dumps(options, indent=2),
    )


def _classes(classes: Sequence[str] | None) -> str:
    if classes is None:
        return "The names of its classes were not given when it was saved."
    return "Its classes, in the order of the logits: " + ", ".join(classes) + "."
