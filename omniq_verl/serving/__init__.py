"""HTTP server for scores: its routes, its deployment on a Ray cluster, and its clients."""

from typing import TYPE_CHECKING

from omniq_verl.lazy_names import export_names

if TYPE_CHECKING:
    from omniq_verl.serving.client import Client, ServerError
    from omniq_verl.serving.limits import Limits
    from omniq_verl.serving.reward_client import ServerReward, compute_score
    from omniq_verl.serving.run import serve_forever
    from omniq_verl.serving.settings import ServerSettings

__all__ = ["Client", "Limits", "ServerError", "ServerReward", "ServerSettings", "compute_score", "serve_forever"]

export_names(
    __name__,
    {
        "client": ["Client", "ServerError"],
        "limits": ["Limits"],
        "reward_client": ["ServerReward", "compute_score"],
        "run": ["serve_forever"],
        "settings": ["ServerSettings"],
    },
)
