"""What pipelines may spend and how many errors their agents may make, where they do not say so themselves."""

from dataclasses import dataclass, field

from trilogue.agent import ErrorBudget
from trilogue.money import USD
from trilogue.settings import Settings
from trilogue.spec import PipelineSpec


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Budgets of a pipeline (DESIGN section 6).

    Attributes:
        max_tokens: of each role, questions and answers together.
        max_nanousd: of the pipeline, in billionths of a dollar.
        replacements: how often in a round a role's agent is replaced at once when it is taken out.
    """

    max_tokens: int = 200_000
    max_nanousd: int = 2 * USD
    errors: ErrorBudget = field(default_factory=ErrorBudget)
    replacements: int = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        in_all, alike, violations = map(int, settings.errors.split("/"))
        return cls(
            max_tokens=settings.max_tokens,
            max_nanousd=nanousd_of(settings.max_cost),
            errors=ErrorBudget(in_all=in_all, alike=alike, violations=violations),
            replacements=settings.replacements,
        )

    def over(self, spec: PipelineSpec) -> "Limits":
        """These limits with what `spec` sets otherwise."""
        return Limits(
            max_tokens=self.max_tokens if spec.max_tokens is None else spec.max_tokens,
            max_nanousd=self.max_nanousd if spec.max_cost is None else nanousd_of(spec.max_cost),
            errors=ErrorBudget(**spec.errors.model_dump()) if spec.errors else self.errors,
            replacements=self.replacements if spec.replacements is None else spec.replacements,
        )


DEFAULT_LIMITS = Limits()


def nanousd_of(dollars: float) -> int:
    """Dollars in billionths, rounded."""
    return round(dollars * USD)
