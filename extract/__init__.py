"""Extraction: data sets, views, backbones and the pipeline that fills a store. Never imports heads."""
