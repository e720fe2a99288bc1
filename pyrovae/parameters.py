"""The parameters of a pair: which there are, whose they are, and where Pyro finds them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pyrovae import programs

logger = logging.getLogger(__name__)


class PairParameters(nn.Module):
    """The modules of two programs and the parameters of their param sites, as one module.

    Pyro's parameter store holds them within `scope()` and is left as it was by it.

    Parameters
    ----------
    model, guide : callable
        The two programs.
    """

    model: Any  # programs, whose attributes are the user's
    guide: Any

    _scopes = 0  # how many are open in this process, of any pair

    def __init__(self, model: programs.Program, guide: programs.Program) -> None:
        super().__init__()
        programs.check_names(programs.module_parameters(model), programs.module_parameters(guide))
        # Plain attributes: a bound method is no module, and a shared owner must be registered once.
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "guide", guide)
        self.owners = nn.ModuleDict()
        seen: set[int] = set()
        for label, program in (("model", model), ("guide", guide)):
            for name, module in programs.owned_modules(program).items():
                if id(module) not in seen:
                    self.owners[f"{label}_{name}" if name else label] = module
                    seen.add(id(module))
        self.param_sites = nn.ParameterDict()
        self._site_names: dict[str, str] = {}  # key in param_sites -> name of the param site
        self._constraints: dict[str, Any] = {}
        self._module_sites: dict[str, str] = {}  # name of a param site -> name of a parameter of the modules
        self._module_constraints: dict[str, Any] = {}
        self._shown: dict[str, set[str]] = {"model": set(), "guide": set()}  # names of parameters, by program
        self._foreign = False  # whether there are parameters of modules that only the programs know

    @property
    def has_hidden_modules(self) -> bool:
        """Whether the programs work with modules that cannot be found from outside, but by the parameters they show."""
        return self._foreign

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """A context in which Pyro's parameter store holds this pair's parameters and nothing else.

        On leaving, the store is what it was. Every method of VAE and the Trainer work in it, so that pairs in one
        process never meet; nested scopes of one VAE are cheap. Parameters that are not trained stay so, though Pyro
        would turn them on again.
        """
        params: dict[str, Tensor] = {self._site_names[key]: value for key, value in self.param_sites.items()}
        constraints = dict(self._constraints)
        frozen = [parameter for parameter in self.parameters() if not parameter.requires_grad]
        with warnings.catch_warnings():
            if frozen:
                warnings.filterwarnings("ignore", message=".*was not registered in the param store")
                if self._module_sites:
                    # What is in the store already is not registered again, which is when Pyro turns them on.
                    known = dict(self.named_parameters(remove_duplicate=False))
                    for name, path in self._module_sites.items():
                        if path in known and not known[path].requires_grad:
                            params[name], constraints[name] = known[path], self._module_constraints[name]
            PairParameters._scopes += 1
            try:
                with pyro.get_param_store().scope({"params": params, "constraints": constraints}):
                    yield
            finally:
                PairParameters._scopes -= 1
                for parameter in frozen:
                    parameter.requires_grad_(False)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the model and those of the guide, for rates or freezing of their own.

        A parameter of both stands in "model". Param sites belong to the program that shows them, and so do the parts
        of a module that both programs work with. They are known once the pair has seen data.

        Returns
        -------
        dict from str to list of nn.Parameter
            With the keys "model" and "guide"; together every parameter once.
        """
        owned = {}
        for label in ("model", "guide"):
            modules = programs.owned_modules(getattr(self, label)).values()
            owned[label] = {id(parameter) for module in modules for parameter in module.parameters()}
        groups: dict[str, list[nn.Parameter]] = {"model": [], "guide": []}
        for name, parameter in self.named_parameters():
            in_modules = {label for label in groups if id(parameter) in owned[label]}
            shown = {label for label in groups if name in self._shown[label]}
            by = (in_modules & shown if in_modules else shown) or in_modules
            groups["guide" if by == {"guide"} else "model"].append(parameter)
        return groups

    def store_names(self) -> dict[str, str]:
        """The names that parameters have in Pyro's store, by their names in this module; known once data were seen."""
        found = {path: name for name, path in self._module_sites.items()}
        return found | {f"param_sites.{key}": name for key, name in self._site_names.items()}

    def to_param_store(self) -> None:
        """Write the parameters to Pyro's global store, where `Predictive` and other tools of Pyro look for them.

        Values of param sites are copied; parameters of modules are handed over as they are. The values are those of
        now: call it again after further training.

        Raises
        ------
        RuntimeError
            If the pair has seen no data yet, so that its param sites are not known.

        Examples
        --------
        >>> import pyro.distributions as dist
        >>> from pyrovae import VAE
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(pyro.param("loc", torch.tensor(3.0)), 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x, 1.0))
        >>> VAE(model, guide, example=torch.zeros(2)).to_param_store()
        >>> pyro.param("loc").item()
        3.0
        >>> pyro.clear_param_store()
        """
        if not self._shown["model"] and not self._shown["guide"] and next(self.parameters(), None) is not None:
            raise RuntimeError("the pair has seen no data, so its parameters are not known; call prepare(x) first")
        known = dict(self.named_parameters(remove_duplicate=False))
        params: dict[str, Tensor] = {name: known[path] for name, path in self._module_sites.items() if path in known}
        for key, value in self.param_sites.items():
            hidden = key in self._hidden
            params[self._site_names[key]] = value if hidden else value.detach().clone().requires_grad_()
        constraints = {name: (self._module_constraints | self._constraints)[name] for name in params}
        pyro.get_param_store().set_state({"params": params, "constraints": constraints})

    @property
    def _hidden(self) -> set[str]:
        """Keys of those param sites that are parameters of modules that only the programs know."""
        return {key for key in self.param_sites if "$$$" in key} if self._foreign else set()

    def _collect(self, label: str, run: Callable[[], Any]) -> tuple[Any, Mapping[str, Any]]:
        """Run a program in a store of its own; return what it gives and the store's state."""
        called: set[int] = set()
        frozen = [parameter for parameter in self.parameters() if not parameter.requires_grad]
        hook = register_module_forward_pre_hook(lambda module, _: called.add(id(module)))
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*was not registered in the param store")
                with pyro.get_param_store().scope() as state:
                    result = run()
        finally:
            hook.remove()
            for parameter in frozen:
                parameter.requires_grad_(False)
        in_store = {id(value) for value in state["params"].values()}
        for prefix, module in self.named_modules(remove_duplicate=False):
            for name, parameter in module.named_parameters(recurse=False):
                if id(module) in called or id(parameter) in in_store:
                    self._shown[label].add(f"{prefix}.{name}")
        return result, state

    def _adopt(self, label: str, state: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        """Make the parameters of a store, those of modules aside, parameters of this pair.

        A param site that Pyro's own store has a value for, because SVI trained it, takes that value.

        Parameters
        ----------
        label : str
            The program that showed them, "model" or "guide".
        state : mapping
            State of the store after the program ran.
        theirs : mapping
            State of the user's store.
        """
        paths = {id(p): name for name, p in self.owners.named_parameters(prefix="owners", remove_duplicate=False)}
        for name, value in state["params"].items():
            key = self.key_of(name)
            if id(value) in paths:
                self._module_sites[name] = paths[id(value)]
                self._module_constraints[name] = state["constraints"][name]
                continue
            self._shown[label].add(f"param_sites.{key}")
            if key in self.param_sites:
                continue
            of_module = isinstance(value, nn.Parameter)
            self._foreign |= of_module
            if not of_module and not PairParameters._scopes and name in theirs["params"]:
                value = self._trained(name, value, theirs["params"][name])
            self.param_sites[key] = value if of_module else nn.Parameter(value.detach().clone())
            self._site_names[key] = name
            self._constraints[name] = state["constraints"][name]

    def key_of(self, name: str) -> str:
        """The key in `param_sites` of a param site."""
        known = next((key for key, site in self._site_names.items() if site == name), None)
        if known is not None:
            return known
        key = name.replace(".", "/") or "_"
        while hasattr(self.param_sites, key):  # another site's, or a method of torch's dictionary, such as "values"
            key += "_"
        return key

    @staticmethod
    def _trained(name: str, value: Tensor, theirs: Tensor) -> Tensor:
        if theirs.shape != value.shape:
            logger.info(
                "param site %r starts at its initial value: Pyro's store has one of shape %s, and this pair's is %s",
                name,
                tuple(theirs.shape),
                tuple(value.shape),
            )
            return value
        logger.info("param site %r takes its value from Pyro's store; pyro.clear_param_store() starts anew", name)
        return theirs.to(value)
