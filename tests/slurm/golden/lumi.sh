#!/bin/bash
#SBATCH --job-name=llama-2-7b-lumi
#SBATCH --account=project_465000001
#SBATCH --partition=standard-g
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@300
#SBATCH --output=logs/job-%j.log
#SBATCH --open-mode=append
#SBATCH --exclusive
#SBATCH --mem=480G
#SBATCH --requeue

# recipe lumi-g, 2026-05-19: github.com/Lumi-supercomputer/LUMI-AI-Guide@a7e3387
# NCCL_NET_GDR_LEVEL=PHB (3) hangs some images of 2026: environment: {NCCL_NET_GDR_LEVEL: null} leaves it out
# nodes have no disk of their own: /tmp is memory and counts against mem

export MIOPEN_USER_DB_PATH=/tmp/miopen-"${USER:-}"-"${SLURM_JOB_ID:-}"
export MIOPEN_CUSTOM_CACHE_DIR=/tmp/miopen-"${USER:-}"-"${SLURM_JOB_ID:-}"
export NCCL_SOCKET_IFNAME=hsn0,hsn1,hsn2,hsn3
export NCCL_NET_GDR_LEVEL=3
export GLOO_SOCKET_IFNAME=hsn0
export CXI_FORK_SAFE=1
export CXI_FORK_SAFE_HP=1
export FI_CXI_DISABLE_CQ_HUGETLB=1

cd -- /home/user/work

srun --nodes=2 --ntasks=16 --ntasks-per-node=8 --distribution=block:block --kill-on-bad-exit=1 --cpus-per-task=7 --cpu-bind=mask_cpu:0xfe000000000000,0xfe00000000000000,0xfe0000,0xfe000000,0xfe,0xfe00,0xfe00000000,0xfe0000000000 \
  /env/bin/frontrunner train '/lustre/runs/a run'
exec /env/bin/frontrunner continue --exit-code "$?" -- '/lustre/runs/a run'
