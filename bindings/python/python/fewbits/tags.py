"""What scikit-learn asks of a model that was fitted elsewhere."""

from typing import Any, Literal

from fewbits.about import About


def tags_of_model(kind: Literal["classifier", "regressor"], about: About) -> Any:
    """scikit-learn's tags of such a model."""
    from sklearn.utils import ClassifierTags, InputTags, RegressorTags, Tags, TargetTags

    classifies = kind == "classifier"
    return Tags(
        estimator_type=kind,
        target_tags=TargetTags(required=True),
        classifier_tags=ClassifierTags() if classifies else None,
        regressor_tags=None if classifies else RegressorTags(),
        input_tags=InputTags(allow_nan=about.nan),
    )
