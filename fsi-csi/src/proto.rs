//! The messages and services as generated from `proto/`.

#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub mod csi {
    tonic::include_proto!("csi.v1");
}

/// How the kubelet asks a plugin who it is.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
