//! Seeds, as `pollux simulate` runs them. Longer: `pollux simulate --seeds 10000`.

use pollux_sim::{MachineKind, Plan, Prepared, run};

/// Seeds with a spare host that are run.
const SPARE_SEEDS: u64 = 150;

#[test]
fn the_same_seed_gives_the_same_timeline_to_the_byte() {
    let (prepared, again) = (Prepared::boot(), Prepared::boot());
    for seed in 1..=16 {
        let plan = Plan::draw(seed, None);
        let first = run(&plan, &prepared, true);
        assert!(first.timeline.lines().count() > 10, "seed {seed}: something happens");
        let second = run(&Plan::draw(seed, None), &again, true);
        assert!(first.timeline == second.timeline, "seed {seed}: two timelines");
        let unseen = run(&plan, &prepared, false);
        assert_eq!(unseen.stats, first.stats, "seed {seed}: whether somebody watches does not show");
        assert!(unseen.timeline.is_empty());
    }
}

#[test]
fn no_seed_shows_a_violation_and_faults_bite() {
    let prepared = Prepared::boot();
    let (mut failovers, mut alone, mut guests, mut operations) = (0, 0, 0, 0);
    for seed in 1..=300 {
        let plan = Plan::draw(seed, None);
        let report = run(&plan, &prepared, false);
        assert_eq!(report.violation, None, "replay: pollux simulate --seed {seed}");
        alone += report.stats.takeovers[0];
        failovers += report.stats.takeovers[1];
        operations += report.stats.operations;
        guests += u64::from(plan.machine == MachineKind::Guest);
        assert_eq!(report.stats.undecided, 0, "seed {seed}");
    }
    assert!(failovers > 60 && alone > 30, "{failovers} failovers, {alone} alone");
    assert!(
        guests == 300 / 8 && operations > 100_000,
        "{guests} with the real machine, {operations} operations"
    );
}

#[test]
fn without_faults_a_pair_stays_a_pair() {
    let prepared = Prepared::boot();
    for machine in [MachineKind::Model, MachineKind::Guest] {
        for seed in 1..=5 {
            let plan = Plan::draw(seed, Some(machine)).only(&[]);
            let report = run(&plan, &prepared, false);
            assert_eq!(report.violation, None, "seed {seed}");
            assert_eq!(report.stats.takeovers, [0, 0], "seed {seed}");
            assert!(
                report.stats.operations > 50 && report.stats.digests > 10,
                "seed {seed}: {:?}",
                report.stats
            );
        }
    }
}

#[test]
fn a_vm_that_has_ended_starts_on_a_spare_host_and_loses_nothing_there() {
    let prepared = Prepared::boot();
    let (mut started, mut survived) = (0, 0);
    for seed in 1..=SPARE_SEEDS {
        let plan = Plan::draw_with_spare(seed, None);
        let report = run(&plan, &prepared, false);
        assert_eq!(report.violation, None, "seed {seed}: {plan}");
        assert_eq!(report.stats.takeovers.len(), 3, "seed {seed}");
        started += u64::from(report.pairs == 2);
        // A survivor of the first pair has ended the VM, or the second pair has one.
        survived += u64::from(report.pairs == 2 && report.stats.takeovers.iter().any(|count| *count > 0));
    }
    assert!(
        started > SPARE_SEEDS / 2 && survived > SPARE_SEEDS / 5,
        "{started} started, {survived} survived"
    );
}
