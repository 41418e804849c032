//! What a verified certificate says of its owner, in the words that accounts are written in.

use rustls::SupportedCipherSuite;

/// Names of attributes as OpenSSL abbreviates them; the others stand as numbers.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// Cipher suites of TLS 1.2 as OpenSSL names them.
const SUITES: &[(&str, &str)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305"),
];

/// Issuer and subject of a certificate, as `X509_NAME_oneline` writes them (`/C=SE/CN=app`).
/// `None` when the bytes are no certificate.
#[must_use]
pub fn names(certificate: &[u8]) -> Option<(String, String)> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut rest, _) = element(certificate)?;
    // Version (tagged 0, may be missing), serial number, algorithm; then the issuer.
    if rest.first() == Some(&0xA0) {
        rest = element(rest)?.2;
    }
    let rest = element(element(rest)?.2)?.2;
    let (_, issuer, rest) = element(rest)?;
    let (_, subject, _) = element(element(rest)?.2)?;
    Some((one_line(issuer)?, one_line(subject)?))
}

/// What OpenSSL calls a cipher suite.
#[must_use]
pub fn cipher_name(suite: SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    match SUITES.iter().find(|(ours, _)| *ours == name) {
        Some((_, theirs)) => (*theirs).to_owned(),
        None => name.replacen("TLS13_", "TLS_", 1),
    }
}

/// One element of DER: its tag, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x83 => {
            let (len, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (len.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn one_line(mut name: &[u8]) -> Option<String> {
    let mut line = String::new();
    while !name.is_empty() {
        let (_, mut set, rest) = element(name)?;
        name = rest;
        while !set.is_empty() {
            let (_, attribute, rest) = element(set)?;
            set = rest;
            let (_, kind, value) = element(attribute)?;
            let (_, value, _) = element(value)?;
            let kind = dotted(kind);
            let known = ATTRIBUTES.iter().find(|(number, _)| *number == kind);
            line.push('/');
            line.push_str(known.map_or(kind.as_str(), |(_, name)| *name));
            line.push('=');
            for byte in value {
                match byte {
                    b' '..=b'~' => line.push(char::from(*byte)),
                    other => line.push_str(&format!("\\x{other:02X}")),
                }
            }
        }
    }
    Some(line)
}

/// An object identifier in its usual form.
fn dotted(bytes: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut part = 0_u64;
    for byte in bytes {
        part = part << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            parts.push(std::mem::take(&mut part));
        }
    }
    // The first two numbers share the first part.
    if let Some(first) = parts.first_mut() {
        let top = (*first / 40).min(2);
        *first -= top * 40;
        parts.insert(0, top);
    }
    parts.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_openssl_does() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CountryName, "SE");
        name.push(rcgen::DnType::OrganizationName, "Grün & Co");
        name.push(rcgen::DnType::CustomDnType(vec![0, 9, 2342, 19_200_300, 100, 1, 1]), "app");
        name.push(rcgen::DnType::CustomDnType(vec![1, 2, 3, 400]), "?");
        name.push(rcgen::DnType::CommonName, "app");
        parameters.distinguished_name = name;
        let signed = parameters.self_signed(&key).expect("a certificate");
        // As `openssl x509 -subject -nameopt compat` prints it.
        let line = "/C=SE/O=Gr\\xC3\\xBCn & Co/UID=app/1.2.3.400=?/CN=app";
        assert_eq!(names(signed.der()), Some((line.to_owned(), line.to_owned())));
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        let signed = parameters.self_signed(&key).expect("a certificate");
        for cut in 0..signed.der().len() {
            assert_eq!(names(&signed.der()[..cut]), None, "{cut}");
        }
        for byte in 0..=255 {
            assert_eq!(names(&[byte; 40]), None, "{byte}");
        }
    }

    #[test]
    fn ciphers_have_openssl_s_names() {
        let names: Vec<_> =
            crate::tls::provider().cipher_suites.iter().map(|suite| cipher_name(*suite)).collect();
        assert!(names.contains(&"TLS_AES_256_GCM_SHA384".to_owned()), "{names:?}");
        assert!(names.contains(&"ECDHE-RSA-AES128-GCM-SHA256".to_owned()), "{names:?}");
        assert!(names.iter().all(|name| !name.contains("WITH")), "{names:?}");
    }
}
