//! TLS settings of listeners and next hops: rustls with ring, TLS 1.2 and later.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

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

/// The certificates of authorities in a PEM file.
pub fn authorities(path: &Path) -> Result<RootCertStore, String> {
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
        false => Arc::new(Checked { provider: provider.clone(), check: Any }),
        true => Arc::new(Checked { provider: provider.clone(), check: Vouched::new(&plan.trust)? }),
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
    checked(Vouched::new(trust)?)
}

/// The settings towards a server whose certificate passes a check; nothing is shown to it.
pub fn checked(check: impl Check + 'static) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())
        .map(|builder| {
            let verifier = Arc::new(Checked { provider, check });
            Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
        })
}

/// The settings towards a server whose certificate one of these authorities signed, for its name.
pub fn signed(chain: Arc<WebPkiServerVerifier>) -> Result<Arc<ClientConfig>, String> {
    checked(Vouched { chain: Some(chain), pins: BTreeSet::new() })
}

/// The settings towards a server of which the same is only asked: what is amiss is told to `doubt`, and it goes on.
pub fn doubted(chain: Arc<WebPkiServerVerifier>, doubt: Arc<Doubt>) -> Result<Arc<ClientConfig>, String> {
    checked(Doubting { chain: Vouched { chain: Some(chain), pins: BTreeSet::new() }, doubt })
}

/// What makes sure of a chain, up to one of these authorities.
pub fn chain_to(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
    WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::new(ring::default_provider()))
        .build()
        .map_err(|e| e.to_string())
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
    checked(Any)
}

/// What a server shows of itself in a handshake.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its certificate.
    pub own: &'a CertificateDer<'a>,
    /// Those that are to lead from it to an authority.
    pub between: &'a [CertificateDer<'a>],
    /// The name it is asked for by.
    pub name: &'a ServerName<'a>,
    /// When that is.
    pub now: UnixTime,
}

/// What is asked of a server's certificate.
pub trait Check: core::fmt::Debug + Send + Sync {
    /// Whether it will do.
    fn check(&self, shown: Shown<'_>) -> Result<(), rustls::Error>;
}

/// Takes a certificate that passes, and whatever it is still demands that its owner signs the handshake.
#[derive(Debug)]
struct Checked<C> {
    provider: Arc<CryptoProvider>,
    check: C,
}

impl<C: Check> ServerCertVerifier for Checked<C> {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check.check(Shown { own, between, name, now }).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Any will do.
#[derive(Debug)]
struct Any;

impl Check for Any {
    fn check(&self, _: Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// What was amiss with a certificate that was taken all the same.
#[derive(Debug, Default)]
pub struct Doubt(Mutex<Option<String>>);

impl Doubt {
    /// Takes it, so that it is told once.
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Takes any certificate, and tells whether it would pass.
#[derive(Debug)]
struct Doubting {
    chain: Vouched,
    doubt: Arc<Doubt>,
}

impl Check for Doubting {
    fn check(&self, shown: Shown<'_>) -> Result<(), rustls::Error> {
        let why = self.chain.check(shown).err().map(|e| e.to_string());
        *self.doubt.0.lock().unwrap_or_else(PoisonError::into_inner) = why;
        Ok(())
    }
}

/// A certificate that has what the profile asks for: signed by its authorities for the name asked for, of a pinned key, or both.
/// A pinned key alone counts whatever else the certificate says, as one of DANE-EE does (RFC 7672 3.1.1).
#[derive(Debug)]
struct Vouched {
    chain: Option<Arc<WebPkiServerVerifier>>,
    pins: BTreeSet<[u8; 32]>,
}

impl Vouched {
    fn new(trust: &Trust) -> Result<Self, String> {
        let chain = match &trust.ca {
            None if trust.pins.is_empty() => return Err("nothing to verify a certificate by".to_owned()),
            None => None,
            Some(path) => {
                Some(chain_to(authorities(path)?).map_err(|e| format!("authorities {}: {e}", path.display()))?)
            }
        };
        Ok(Self { chain, pins: trust.pins.clone() })
    }
}

impl Check for Vouched {
    fn check(&self, Shown { own, between, name, now }: Shown<'_>) -> Result<(), rustls::Error> {
        if !self.pins.is_empty() {
            let key = ParsedCertificate::try_from(own)?.subject_public_key_info();
            let pinned = <[u8; 32]>::try_from(digest(&SHA256, &key).as_ref()).is_ok_and(|d| self.pins.contains(&d));
            if !pinned {
                return Err(rustls::Error::General("its public key is none of those that are pinned".to_owned()));
            }
        }
        match &self.chain {
            Some(chain) => chain.verify_server_cert(own, between, name, &[], now).map(drop),
            None => Ok(()),
        }
    }
}
