//! TLS settings of listeners and next hops: rustls with ring, TLS 1.2 and later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use ::ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::config::smarthost::{SmarthostPlan, Trust};

/// A listener's settings from its PEM files. With `client_ca` clients are asked for a certificate; one that shows none is served
/// all the same, one that does not verify is not.
pub fn server(certificate: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match client_ca {
        None => Arc::new(NoClientAuth),
        Some(path) => WebPkiClientVerifier::builder_with_provider(authorities(path)?.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| format!("authorities {}: {e}", path.display()))?,
    };
    let (chain, private) = identity(certificate, key)?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, private)
        .map(Arc::new)
        .map_err(|e| format!("certificate {} and its key do not fit: {e}", certificate.display()))
}

fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let unreadable = |e: &dyn core::fmt::Display| format!("cannot read authorities {}: {e}", path.display());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter(path).map_err(|e| unreadable(&e))? {
        let authority = authority.map_err(|e| unreadable(&e))?;
        roots.add(authority).map_err(|e| unreadable(&e))?;
    }
    Ok(roots)
}

/// The settings towards a next hop that the profile describes: what its certificate must have, and what is shown to it.
pub fn client(plan: &SmarthostPlan) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match plan.is_verified() {
        false => Arc::new(AnyCertificate(provider.clone())),
        true => Arc::new(Vouched::new(provider.clone(), &plan.trust)?),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let Some((certificate, key)) = &plan.identity else { return Ok(Arc::new(builder.with_no_client_auth())) };
    let (chain, private) = identity(certificate, key)?;
    builder
        .with_client_auth_cert(chain, private)
        .map(Arc::new)
        .map_err(|e| format!("certificate {} and its key do not fit: {e}", certificate.display()))
}

/// The settings towards a server whose certificate must have what the profile asks for.
pub fn verified(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Vouched::new(provider.clone(), trust)?);
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())
        .map(|b| Arc::new(b.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()))
}

/// A chain of certificates and the private key of the first.
fn identity(certificate: &Path, key: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("cannot read certificate {}: {e}", certificate.display()))?;
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(|e| format!("cannot read private key {}: {e}", key.display()))?;
    Ok((chain, private))
}

/// Opportunistic TLS towards next hops (RFC 7435): encrypts against listeners, proves no identity, never delays mail over a
/// certificate nobody asked to be checked.
pub fn opportunistic_client() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())
        .map(|builder| {
            let verifier = Arc::new(AnyCertificate(provider));
            Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
        })
}

/// Takes any certificate but still demands that its owner signs the handshake.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes a certificate that has what the profile asks for: signed by its authorities for the name asked for, of a pinned key, or both.
/// A pinned key alone counts whatever else the certificate says, as one of DANE-EE does (RFC 7672 3.1.1).
#[derive(Debug)]
struct Vouched {
    any: AnyCertificate,
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: BTreeSet<[u8; 32]>,
}

impl Vouched {
    fn new(provider: Arc<CryptoProvider>, trust: &Trust) -> Result<Self, String> {
        let chain = match &trust.ca {
            None if trust.pins.is_empty() => return Err("nothing to verify a certificate by".to_owned()),
            None => None,
            Some(path) => Some(
                WebPkiServerVerifier::builder_with_provider(authorities(path)?.into(), provider.clone())
                    .build()
                    .map_err(|e| format!("authorities {}: {e}", path.display()))?,
            ),
        };
        Ok(Self { any: AnyCertificate(provider), chain, pins: trust.pins.clone() })
    }
}

impl ServerCertVerifier for Vouched {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pins.is_empty() {
            let key = ParsedCertificate::try_from(own)?.subject_public_key_info();
            let pinned = <[u8; 32]>::try_from(digest(&SHA256, &key).as_ref()).is_ok_and(|d| self.pins.contains(&d));
            if !pinned {
                return Err(rustls::Error::General("its public key is none of those that are pinned".to_owned()));
            }
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(own, between, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.any.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.any.supported_verify_schemes()
    }
}
