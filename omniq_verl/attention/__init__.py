"""Attention over packed sequences, for training without padding and without flash-attn.

``segments`` has the layout and the kernels (torch only). ``transformers_attention`` makes them available as an
``attn_implementation`` of transformers. The verl adapter is ``omniq_verl.trainer.packed_engine_verl``.
"""
