"""A training by two workers of Ray Train on this machine. Run as a script with a folder for their weights."""

import os
import sys


def work(config):
    """What each worker does. It is not started where this script is."""
    sys.path.insert(0, config["path"])
    import pairs_of_processes as together

    vae, _ = together.train("drawn")
    together.save(vae, config["folder"])


def main(folder):
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(num_cpus=3, include_dashboard=False)
    trainer = TorchTrainer(
        work,
        train_loop_config={"folder": folder, "path": os.path.dirname(os.path.abspath(__file__))},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=os.path.join(folder, "ray")),
    )
    trainer.fit()
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
