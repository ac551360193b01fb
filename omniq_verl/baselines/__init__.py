"""What the papers' tables compare with, as data for SFT: answers without reasoning."""
