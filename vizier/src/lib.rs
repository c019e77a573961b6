//! vizier
