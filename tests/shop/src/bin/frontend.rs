//! `shop-frontend --catalog ADDR --checkout ADDR [--listen ADDR]`
#![forbid(unsafe_code)]

use shop::{program, service};

fn main() {
    let options = program::Options::from_args("shop-frontend --catalog ADDR --checkout ADDR [--listen ADDR]");
    let handler = service::frontend::handler(options.require("catalog"), options.require("checkout"));
    program::run_service(&options, handler);
}
