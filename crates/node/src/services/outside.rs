//! Connections to servers that a caller names: with TLS, unless the caller says otherwise.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// How long a server may take for one answer in all, as in the existing service.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(10);

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// A connection, encrypted or not.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why a server gave no answer. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum OutsideError {
    #[error("«{0}» is no address of a server")]
    Address(String),
    #[error("no certificate authority is installed on this machine, so no server can be trusted")]
    NoAuthorities,
    #[error("the server cannot be reached: {0}")]
    Unreachable(#[from] io::Error),
    #[error("the server does not answer as it should: {0}")]
    Protocol(Box<dyn std::error::Error + Send + Sync>),
    #[error("the server has not answered in time")]
    TooLate,
}

/// Connects with a server, over TLS 1.3 unless `tls` is false. The server is trusted if the machine does.
pub(super) async fn connect(
    authority: &Authority,
    tls: bool,
    protocol: &[u8],
) -> Result<Box<dyn Connection>, OutsideError> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls { HTTPS_PORT } else { HTTP_PORT });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let roots = tokio::task::spawn_blocking(trusted_by_the_machine)
        .await
        .map_err(|error| OutsideError::Unreachable(io::Error::other(error)))?;
    secured(stream, host, roots, protocol).await
}

/// Those whom the machine trusts. Reads files.
fn trusted_by_the_machine() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Encrypts a connection with a server that somebody of `roots` vouches for.
async fn secured(
    stream: TcpStream,
    host: String,
    roots: RootCertStore,
    protocol: &[u8],
) -> Result<Box<dyn Connection>, OutsideError> {
    if roots.is_empty() {
        return Err(OutsideError::NoAuthorities);
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| OutsideError::Address(host))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| OutsideError::Unreachable(io::Error::other(error)))?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
}

/// Gets what is at an address. Redirects are not followed: nobody else is asked than whom the caller named.
///
/// # Errors
/// [`OutsideError`], also when the answer is longer than `bytes_max`.
pub(super) async fn get(url: &str, bytes_max: usize) -> Result<(u16, Bytes), OutsideError> {
    match tokio::time::timeout(ANSWER_MAX, get_at_length(url, bytes_max)).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(OutsideError::TooLate),
    }
}

async fn get_at_length(url: &str, bytes_max: usize) -> Result<(u16, Bytes), OutsideError> {
    let not_an_address = || OutsideError::Address(url.split_once('?').map_or(url, |(url, _)| url).to_owned());
    let parts = url.parse::<Uri>().map_err(|_| not_an_address())?.into_parts();
    let tls = match parts.scheme {
        Some(scheme) if scheme == Scheme::HTTPS => true,
        Some(scheme) if scheme == Scheme::HTTP => false,
        _ => return Err(not_an_address()),
    };
    let authority = parts.authority.ok_or_else(not_an_address)?;
    let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let stream = connect(&authority, tls, b"http/1.1").await?;
    let malformed = |error: Box<dyn std::error::Error + Send + Sync>| OutsideError::Protocol(error);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| malformed(error.into()))?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path.as_str())
        .header(http::header::HOST, authority.as_str())
        .body(Empty::<Bytes>::new())
        .map_err(|error| malformed(error.into()))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|error| malformed(error.into()))?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), bytes_max).collect().await.map_err(malformed)?;
        Ok((status, body.to_bytes()))
    };
    let answer = answer.await;
    connection.abort();
    answer
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

    use super::*;

    #[tokio::test]
    async fn only_a_server_that_somebody_trusted_vouches_for_is_talked_to() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let address = serve(certificate.clone(), made.key_pair.serialize_der()).await;
        let connect = |host: &str, trusted: &CertificateDer<'static>| {
            let mut roots = RootCertStore::empty();
            roots.add(trusted.clone()).unwrap();
            let host = host.to_owned();
            async move {
                let stream = TcpStream::connect(address).await.unwrap();
                secured(stream, host, roots, b"h2").await
            }
        };

        let mut stream = connect("localhost", &certificate).await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        for (host, trusted) in [("localhost", other.cert.der()), ("elsewhere.example", &certificate)] {
            assert!(matches!(connect(host, trusted).await, Err(OutsideError::Unreachable(_))), "{host}");
        }
        let stream = TcpStream::connect(address).await.unwrap();
        let nobody = secured(stream, "localhost".to_owned(), RootCertStore::empty(), b"h2").await;
        assert!(matches!(nobody, Err(OutsideError::NoAuthorities)));
    }

    async fn serve(certificate: CertificateDer<'static>, key: Vec<u8>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key).into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    stream.write_all(b"hello").await.unwrap();
                }
            }
        });
        address
    }
}
