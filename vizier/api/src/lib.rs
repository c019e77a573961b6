//! vizier-api
