//! The Transport for the world: MX, DANE, MTA-STS, smarthosts.
