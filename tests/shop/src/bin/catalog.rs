//! `shop-catalog [--listen ADDR]`
#![forbid(unsafe_code)]

use shop::{program, service};

fn main() {
    let options = program::Options::from_args("shop-catalog [--listen ADDR]");
    program::run_service(&options, service::catalog::handler());
}
