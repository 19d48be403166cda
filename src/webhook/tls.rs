//! TLS for calls: the certificate authorities that this machine trusts.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use crate::logging::warn;

/// Reads the machine's certificates.
///
/// # Errors
/// When TLS can't be used at all.
pub(super) fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // One that can't be read is one that signs nothing for us.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        warn!(
            "no certificates are found: webhooks with https:// will fail; install ca-certificates"
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
