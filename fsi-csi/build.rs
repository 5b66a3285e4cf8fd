//! Makes the services and messages of CSI and of the kubelet's plugin registration from their .proto files.

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=proto");
    for file in ["csi.proto", "pluginregistration.proto"] {
        let mut compiler = protox::Compiler::new(["proto"]).context("open proto")?;
        // The well-known types too, or nobody knows what they are.
        compiler.include_imports(true);
        compiler.open_file(file).with_context(|| format!("compile proto/{file}"))?;
        // What no capability says that we serve is UNIMPLEMENTED.
        let builder = tonic_prost_build::configure().generate_default_stubs(true);
        builder.compile_fds(compiler.file_descriptor_set()).with_context(|| format!("make code from proto/{file}"))?;
    }
    Ok(())
}
