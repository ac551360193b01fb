"""Run verl on a machine without accelerator: platform, FSDP engine and a few patches.

Active only if ``VERL_PLATFORM=cpu`` is set. ``patches.PATCHES`` lists everything that is changed outside of verl's
registries, with the upstream line and the condition for removing it.
"""

from omniq_verl.import_hooks import after_import, once_complete


def activate() -> None:
    """Register the CPU platform and engine with verl, and apply the patches."""
    from omniq_verl.cpu import patches

    after_import("verl.plugin.platform.platform_manager", _register_platform)
    after_import("verl.workers.engine.fsdp.transformer_impl", _register_engine)
    patches.apply_all()


def _register_platform(_module: object) -> None:
    import omniq_verl.cpu.platform_verl  # noqa: F401  (registers itself with verl)


@once_complete
def _register_engine(_module: object) -> None:
    import omniq_verl.cpu.engine_verl  # noqa: F401  (registers itself with verl)
