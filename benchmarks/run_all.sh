#!/bin/sh
# Every benchmark of RESULTS.md, one after the other: about a day on two cores. Trainings resume where they stopped, so
# this may be interrupted and started again; what each prints is appended to runs/benchmarks.log.
#
#     PYROVAE_DATA=... sh benchmarks/run_all.sh python
#
set -eu
python=${1:-python}
: "${PYROVAE_DATA:?set PYROVAE_DATA to the folder of the data sets}"
# Threads that spin while they wait slow each other down on a busy machine.
export OMP_WAIT_POLICY=passive
mkdir -p runs

measure() {
    echo "== $*" | tee -a runs/benchmarks.log
    "$python" "$@" 2>>runs/benchmarks.err | tee -a runs/benchmarks.log
}

measure benchmarks/numerics.py
measure benchmarks/gradients.py
measure benchmarks/epoch_time.py
measure benchmarks/step_time.py
measure benchmarks/few_labels.py mnist-8 fashion-8 fashion-14 wine breast-cancer iris digits

for prior in standard-normal vamp; do
    measure benchmarks/static_mnist.py train --prior $prior --quiet
    measure benchmarks/static_mnist.py evaluate --prior $prior
done
for name in fashion-mnist cifar10-subset; do
    measure benchmarks/images.py $name
done

for objective in vimco wake-wake nvil rws; do
    measure benchmarks/sbn.py train --objective $objective --quiet
    measure benchmarks/sbn.py evaluate --objective $objective
done
measure benchmarks/sbn.py plot
measure benchmarks/gmm.py train
measure benchmarks/gmm.py report

nets="--objective iwae --num-particles 5 --hidden 300,300 --layer gated --lr 2e-3 --warm-up 10"
for seed in 0 1; do
    for latent in "kumaraswamy --epochs 100" "gaussian --epochs 60"; do
        measure benchmarks/stick_breaking.py train --latent $latent $nets --seed $seed --compile --quiet
        measure benchmarks/stick_breaking.py evaluate --latent $latent $nets --seed $seed
    done
done
semi_supervised() {
    measure benchmarks/semi_supervised.py train "$@" --quiet
    measure benchmarks/semi_supervised.py evaluate "$@"
}
few="--classification-weight 5 --lr 3e-3 --dropout 0.3 --noise 0.2 --shift 1"
for labels in "0.1 --repeat 1 --epochs 20" "0.05 --repeat 2 --epochs 20" "0.01 --repeat 3 --epochs 30"; do
    for seed in 0 1; do
        for latent in stick-breaking gaussian; do
            semi_supervised --latent $latent $few --labels $labels --seed $seed
        done
    done
    semi_supervised --latent stick-breaking --classification-weight 5 --lr 3e-3 --labels $labels
    semi_supervised --data mnist-rotated --latent stick-breaking $few --labels $labels
done
semi_supervised --latent gaussian $few --labels 600 --repeat 3 --epochs 30

measure benchmarks/air.py
measure benchmarks/air.py --objective graph --particles 1
measure benchmarks/missing.py run --data mnist fashion-mnist synthetic --quiet
measure benchmarks/missing.py run --data mnist --seed 1 --quiet
measure benchmarks/missing.py run --data mnist-20k --trained-missing 0.3 0.5 0.7 0.9 --quiet
measure benchmarks/missing.py gap --quiet
measure benchmarks/missing.py tables --rows 5000 --quiet
measure benchmarks/missing.py show
