//! The short form of the soak; `cargo xtask test soak` runs the long one.

use p2pnode_tests::{
    prelude::*,
    soak::{
        self,
        schedule::{Form, Schedule},
    },
};

lab_tests! {
    after_a_minute_of_faults_all_is_direct_again_and_every_reason_had_its_cause: short();
}

const SEED: u64 = 17;

async fn short() -> Result<()> {
    let schedule = Schedule::new(SEED, Form::SHORT);
    let kinds = [NatKind::EimApdf, NatKind::EimApdfRewrite];
    soak::run(Lab::of_test().await?, schedule, kinds)
        .await?
        .passed()
}
