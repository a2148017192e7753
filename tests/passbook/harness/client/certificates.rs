//! A certificate authority for tests, and the files that it signs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

use crate::harness::Server;

/// An authority with a directory for its certificate (`ca.crt`) and the certificates that it signs.
pub struct Authority {
    pub directory: TempDir,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of a test");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.crt"), &pem).expect("written");
        Self { directory, pem, issuer: Issuer::new(params, key) }
    }

    /// Signs a certificate with these DNS names and URIs.
    pub fn sign(&self, dns_names: &[&str], uris: &[&str]) -> Signed {
        self.sign_until(2100, dns_names, uris)
    }

    /// The same with an expiry date.
    pub fn sign_until(&self, year: i32, dns_names: &[&str], uris: &[&str]) -> Signed {
        let mut params = Self::params(dns_names, uris);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign_params(params)
    }

    /// The parameters of a certificate with these DNS names and URIs, for no use.
    pub fn params(dns_names: &[&str], uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        let text = |text: &&str| (*text).try_into().expect("ASCII");
        params.subject_alt_names.extend(dns_names.iter().map(|it| SanType::DnsName(text(it))));
        params.subject_alt_names.extend(uris.iter().map(|it| SanType::URI(text(it))));
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params
    }

    /// Signs a certificate with these parameters.
    pub fn sign_params(&self, params: CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the server's certificate and its key.
    pub fn install(&self, signed: &Signed) {
        std::fs::write(self.file("tls.crt"), &signed.certificate).expect("written");
        std::fs::write(self.file("tls.key"), &signed.key).expect("written");
    }

    /// The arguments of a server with this certificate.
    pub fn arguments(&self) -> Vec<String> {
        let path = |name: &str| text(&self.file(name));
        let (certificate, key) = (path("tls.crt"), path("tls.key"));
        let flags = ["--tls-certificate-file", "--tls-key-file"].map(str::to_owned);
        let [first, second] = flags;
        vec![first, certificate, second, key]
    }

    /// The arguments of a server that also requires client certificates of this authority.
    pub fn mutual_arguments(&self) -> Vec<String> {
        let mut arguments = self.arguments();
        arguments.extend(["--tls-client-ca-file".to_owned(), text(&self.file("ca.crt"))]);
        arguments
    }

    /// Connects to a server, trusting this authority, with or without a certificate.
    pub async fn connect(&self, server: &Server, own: Option<&Signed>) -> Result<Channel, Error> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.pem))
            .domain_name("localhost");
        if let Some(Signed { certificate, key }) = own {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let uri = format!("https://{}", server.address);
        Endpoint::from_shared(uri).expect("an address").tls_config(tls)?.connect().await
    }

    /// Performs the handshake of a client that trusts this authority and offers these protocols.
    pub async fn handshake(
        &self,
        stream: TcpStream,
        protocols: &[&str],
    ) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        roots.add(root).expect("an authority");
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        let name = "localhost".try_into().expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

pub fn text(path: &Path) -> String {
    path.to_str().expect("a plain path").to_owned()
}
