//! pem-tables
