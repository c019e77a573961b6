//! `cargo xtask dist`: what a machine needs to run Pyxis, in one archive that comes out the same from the same sources.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{SAME_FEATURES, Workspace};
use crate::{digest, ebpf, guests, run};

/// Builds `target/dist/pyxis-VERSION-ARCH-linux.tar.gz` and its digest.
pub fn run(workspace: &Workspace) -> Result<()> {
    let kernel = ebpf::build(workspace)?;
    let plugins = guests::build(workspace)?;
    let mut build = workspace.cargo();
    build.args(["build", "--release", "--package", "px", "--locked"]).args(SAME_FEATURES);
    run::require(workspace, "px (release)", &mut build)?;

    let name = format!("pyxis-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let dist = workspace.target.join("dist");
    let tree = dist.join(&name);
    let _ = fs::remove_dir_all(&tree);
    // The layout of a prefix: px looks for ../lib/pyxis beside its own folder.
    let place = |from: &std::path::Path, to: &str| -> Result<()> {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().expect("a relative path has a parent"))?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    };
    place(&workspace.target.join("release/px"), "bin/px")?;
    place(&kernel, "lib/pyxis/ebpf/pyxis.bpf.o")?;
    for plugin in plugins {
        let file = plugin.file_name().context("a plugin without a name")?.to_string_lossy().into_owned();
        place(&plugin, &format!("lib/pyxis/plugins/{file}"))?;
    }
    let capture = workspace.capture();
    if capture.is_file() {
        place(&capture, "lib/pyxis/captures/demo.pxr")?;
    }
    // With it `px plugin new` makes plugins on a machine that has no clone.
    plugins_build::sdk::install(&workspace.root, &tree.join("lib/pyxis"))?;
    for file in ["README.md", "LICENSE"] {
        place(&workspace.root.join(file), file)?;
    }

    let archive = dist.join(format!("{name}.tar.gz"));
    pack(&dist, &name, &archive)?;
    let sum = digest::of_file(&archive)?;
    fs::write(dist.join(format!("{name}.tar.gz.sha256")), format!("{sum}  {name}.tar.gz\n"))?;
    let bytes = archive.metadata()?.len();
    println!("{}  {:.1} MiB  sha256:{sum}", archive.display(), bytes as f64 / f64::from(1 << 20));
    Ok(())
}

/// tar and gzip with everything that varies held still: order, times, owners, the file name in gzip's head.
fn pack(folder: &std::path::Path, name: &str, archive: &std::path::Path) -> Result<()> {
    let mut tar = Command::new("tar")
        .current_dir(folder)
        .args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w"])
        .args(["--format=ustar", "-cf", "-", name])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start tar")?;
    let stream = tar.stdout.take().expect("asked for a pipe");
    let file = fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let gzip =
        Command::new("gzip").args(["-n", "-9"]).stdin(stream).stdout(file).status().context("cannot start gzip")?;
    if !tar.wait()?.success() || !gzip.success() {
        bail!("packing {} failed", archive.display());
    }
    Ok(())
}
