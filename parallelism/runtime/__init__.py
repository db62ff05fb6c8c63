import os

# Or megatron-core, from 0.18 on, starts git for its version when it is imported: in every rank of a job.
os.environ.setdefault("NO_VCS_VERSION", "1")
