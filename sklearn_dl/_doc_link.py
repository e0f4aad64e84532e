"""Link from an estimator's HTML representation to its page of the reference."""


class DocLinkMixin:
    """Leads scikit-learn's HTML representation to the documentation of sklearn_dl."""

    _doc_link_module = "sklearn_dl"
    _doc_link_template = (
        "https://sklearn-dl.readthedocs.io/en/stable/reference/"
        "sklearn_dl.{estimator_name}.html"
    )

    def _doc_link_url_param_generator(self):
        return {"estimator_name": type(self).__name__}
