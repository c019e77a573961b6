//! `shop-checkout --catalog ADDR [--listen ADDR] [--seed N]`
#![forbid(unsafe_code)]

use shop::{program, service};

fn main() {
    let options = program::Options::from_args("shop-checkout --catalog ADDR [--listen ADDR] [--seed N]");
    program::run_service(&options, service::checkout::handler(options.require("catalog"), options.get("seed", 1)));
}
