"""Networks, one architecture per file. Each name below makes a backbone; `network` puts heads on it."""
