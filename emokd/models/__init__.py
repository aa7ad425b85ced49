"""Networks, one architecture per file. `registry` names the backbones; `network` puts heads on them."""
