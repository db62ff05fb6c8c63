#!/bin/bash
#SBATCH --job-name="it's \"odd\" \\ $(touch x)"
#SBATCH --account=abc123
#SBATCH --partition=batch
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --time=02:00:00
#SBATCH --signal=USR1@300
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --network=disable_rdzv_get
#SBATCH --requeue

# recipe frontier, 2026-07-22: docs.olcf.ornl.gov PyTorch on Frontier (github.com/olcf/olcf-user-docs@2745903 software/analytics/pytorch_frontier.rst)
# where Python imports mpi4py, it must do so before torch (under srun, frontrunner does without mpi4py)
# never FI_MR_CACHE_MONITOR=memhooks: it can deadlock with the plugin
# an environment on the nodes' own NVMe (environment_archive) starts in 2 s, on Orion in 51 s, on NFS in 236 s (8 nodes)

module reset
module load PrgEnv-gnu/8.7.0
module load cpe/26.03
module load miniforge3/23.11.0-0
module load rocm/7.1.1
module load rccl-net-plugin
module load craype-accel-amd-gfx90a
export LD_LIBRARY_PATH="${CRAY_LD_LIBRARY_PATH:-}":"${LD_LIBRARY_PATH:-}"
export MIOPEN_USER_DB_PATH=/tmp/miopen-"${USER:-}"-"${SLURM_JOB_ID:-}"
export MIOPEN_CUSTOM_CACHE_DIR=/tmp/miopen-"${USER:-}"-"${SLURM_JOB_ID:-}"
export NCCL_CROSS_NIC=1
export NCCL_NET_GDR_LEVEL=PHB
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export GLOO_SOCKET_IFNAME=hsn0
export HSA_FORCE_FINE_GRAIN_PCIE=1
export FI_MR_CACHE_MONITOR=kdreg2
export FI_CXI_DISABLE_HOST_REGISTER=1
export FI_CXI_DEFAULT_CQ_SIZE=131072
export FI_CXI_DEFAULT_TX_SIZE=2048
export FI_CXI_RX_MATCH_MODE=hybrid
export FI_CXI_RDZV_PROTO=alt_read
export FI_CXI_RDZV_EAGER_SIZE=0
export FI_CXI_RDZV_THRESHOLD=0
export FI_CXI_RDZV_GET_MIN=0

cd -- /home/user/work

srun --nodes=2 --ntasks=16 --ntasks-per-node=8 --distribution=block:block --kill-on-bad-exit=1 --cpus-per-task=7 --cpu-bind=mask_cpu:0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,0xfe,0xfe00,0xfe00000000,0xfe0000000000 \
  /env/bin/frontrunner train $'/lustre/a \'run\' "of" $(touch x) `y`; é\x0a#SBATCH --comment=z'
exec /env/bin/frontrunner continue --exit-code "$?" -- $'/lustre/a \'run\' "of" $(touch x) `y`; é\x0a#SBATCH --comment=z'
