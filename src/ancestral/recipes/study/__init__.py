"""Studies: experiments on models, with their claims."""
