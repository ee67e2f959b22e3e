"""The audit of a round: the frozen split and what keeps it clean, figures on it, drift, and what stops a round.

Empty of imports: `figures` needs what measures, and that needs torch, which taking in images and status do not.
"""
