"""Flows in other people's programs; each module wants the library of its name.

sbi    a flow as the density estimator of sbi's NPE
"""
