"""Audit explanations: from networks and samples to rows, tables, figures and a page.

This room knows no paper and no training, and `import jaxattr` does not load it: it needs polars, Matplotlib and Jinja
(`pip install jaxattr[audit]`).

    spec           what is measured: methods as texts, radii, and the identity of results
    networks       networks as files, weights and card
    measure        programs of one sample: bounds, attacks, metrics
    run            the loop over cells and batches
    rows, store    one row per sample, radius, bound and attack, as Parquet
    summary        rows to lines
    columns        tables as values; tables, figures, blocks and page write them
"""
