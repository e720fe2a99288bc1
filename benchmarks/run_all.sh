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

for latent in kumaraswamy gaussian; do
    measure benchmarks/stick_breaking.py train --latent $latent --quiet
    measure benchmarks/stick_breaking.py evaluate --latent $latent
done
for latent in stick-breaking gaussian; do
    for labels in 0.1 0.05 0.01; do
        measure benchmarks/semi_supervised.py train --latent $latent --labels $labels --quiet
        measure benchmarks/semi_supervised.py evaluate --latent $latent --labels $labels
    done
done
measure benchmarks/semi_supervised.py train --latent gaussian --labels 600 --quiet
measure benchmarks/semi_supervised.py evaluate --latent gaussian --labels 600
