"""TLS files and keys of a federation on one machine: an authority, a server, its nodes."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

from surefoot._run.files import replacing
from surefoot.errors import need

with need("cryptography", extra="federated", part="surefoot federate"):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

VALID = datetime.timedelta(days=30)


def make_tls_files(folder: Path, host: str = "127.0.0.1") -> None:
    """ca.crt, server.crt and server.key in `folder`, the server's for `host` and localhost."""
    now = datetime.datetime.now(datetime.UTC)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def builder(
        subject: str, issuer: str, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(named(subject))
            .issuer_name(named(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + VALID)
        )

    authority, server = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca = (
        builder("surefoot CA", "surefoot CA", authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                key_encipherment=False, data_encipherment=False, key_agreement=False,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False
        )
        .sign(authority, hashes.SHA384())
    )  # fmt: skip
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    certificate = (
        builder(host, "surefoot CA", server)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
            critical=False,
        )
        .sign(authority, hashes.SHA384())
    )
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ca.public_bytes(pem))
    (folder / "server.crt").write_bytes(certificate.public_bytes(pem))
    _private(folder / "server.key", server, serialization.PrivateFormat.PKCS8)


make_certificates = make_tls_files


def make_node_key(path: Path) -> None:
    """An ECDSA P-384 key of a SuperNode: `path` is private, `path`.pub public, both in OpenSSH's format."""
    key = ec.generate_private_key(ec.SECP384R1())
    _private(path, key, serialization.PrivateFormat.OpenSSH)
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")


def _private(
    path: Path, key: ec.EllipticCurvePrivateKey, kind: serialization.PrivateFormat
) -> None:
    """Write a key that its owner alone may read, also where a file of other rights was before."""
    text = key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption())
    with replacing(path, mode=0o600) as partial:
        partial.write_bytes(text)
