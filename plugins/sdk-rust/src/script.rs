//! What `script!` expands to.

/// Makes a function the script: `fn(Args) -> Result<()>`.
///
/// ```
/// use pyxis_sdk::prelude::*;
/// pyxis_sdk::script!(run);
/// fn run(_: Args) -> Result<()> {
///     table("conn_stats")?.display("connections")
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! script {
    ($run:path) => {
        #[doc(hidden)]
        struct PyxisScript;
        impl $crate::bindings::Guest for PyxisScript {
            fn run(
                args: ::std::vec::Vec<(::std::string::String, $crate::Scalar)>,
            ) -> ::core::result::Result<(), $crate::Error> {
                $crate::script::report_panics();
                $run($crate::Args::new(args))
            }
        }
        $crate::bindings::export!(PyxisScript with_types_in $crate::bindings);
    };
}

/// A panic aborts the guest without a word; the hook says what it was first.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|info| crate::log::write(crate::log::Level::Error, &info.to_string())));
}
