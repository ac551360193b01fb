"""verl on a machine without accelerator: platform, FSDP engine and the few patches that takes.

Active only where ``VERL_PLATFORM=cpu`` is set. ``patches.PATCHES`` is the table of everything that is
changed outside of verl's registries, with the upstream line and what would make it unnecessary.
"""

from omniq_verl.import_hooks import after_import


def activate() -> None:
    """Register the CPU platform and engine with verl, and arrange for the patches."""
    from omniq_verl.cpu import patches

    after_import("verl.plugin.platform.platform_manager", _register_platform)
    after_import("verl.workers.engine.fsdp.transformer_impl", _register_engine)
    patches.apply_all()


def _register_platform(_module: object) -> None:
    import omniq_verl.cpu.platform_verl  # noqa: F401  (registers itself with verl)


def _register_engine(_module: object) -> None:
    import omniq_verl.cpu.engine_verl  # noqa: F401  (registers itself with verl)
