"""Many runs of one config: what they differ in, where they run, what came of them."""
