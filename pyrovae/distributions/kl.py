"""Every Kullback-Leibler divergence of the library, in nats, registered with ``torch.distributions.kl``."""
