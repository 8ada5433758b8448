"""Hosts: block lists, excluded domains, statistics over the whole corpus, samples for appeal."""
