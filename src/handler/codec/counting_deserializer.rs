//! A deserializer around another that counts what the values take, by the types that read them.

use std::fmt;
use std::mem::size_of;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::value::RawValue;

use super::brief::Brief;
use super::memory_allowance::{Allowance, Growth};

/// Strings longer than this, in bytes, aren't repeated in errors.
const LONG: usize = 256;

/// The error message when there is too much.
pub(crate) const EXCEEDED: &str = "the input takes too much memory";

/// Stands around each part of a deserializer.
pub(crate) struct Metered<'a, T> {
    inner: T,
    allowance: &'a Allowance,
    /// The bytes that whoever holds the value has for it. What is larger lies in a box.
    slot: usize,
    /// Its items lie in a collection of their own, and its strings are copied.
    owned: bool,
    /// A key of a map, or the name of a variant.
    key: bool,
}

impl<'a, T> Metered<'a, T> {
    pub fn new(inner: T, allowance: &'a Allowance) -> Self {
        Metered { inner, allowance, slot: usize::MAX, owned: true, key: false }
    }

    fn with<U>(&self, inner: U) -> Metered<'a, U> {
        let Metered { allowance, slot, owned, key, .. } = *self;
        Metered { inner, allowance, slot, owned, key }
    }

    fn item<U>(&self, inner: U, slot: usize) -> Metered<'a, U> {
        Metered { inner, allowance: self.allowance, slot, owned: true, key: false }
    }

    /// The deserializer, and its visitor with us around it.
    fn part<'de, V: Visitor<'de>, E: Error>(
        self,
        visitor: V,
        owned: bool,
    ) -> Result<(T, Metered<'a, V>), E> {
        let size = size_of::<V::Value>();
        if size > self.slot && !self.allowance.take(size) {
            return Err(E::custom(EXCEEDED));
        }
        let mut visitor = self.with(visitor);
        visitor.owned = owned;
        Ok((self.inner, visitor))
    }

    /// A string of so many bytes is copied.
    fn copied<E: Error>(&self, bytes: usize) -> Result<(), E> {
        if self.owned && !self.allowance.take(bytes) {
            return Err(E::custom(EXCEEDED));
        }
        Ok(())
    }
}

macro_rules! as_any {
    ($($method:ident($($argument:ident: $type:ty),*), $owned:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            let is_key = self.key;
            let (inner, visitor) = self.part(visitor, $owned)?;
            match is_key {
                // JSON's keys are strings, whatever they are read as.
                true => inner.$method($($argument,)* visitor),
                // An error about a string then comes from the visitor, which we are around.
                false => inner.deserialize_any(visitor),
            }
        }
    )*};
}

macro_rules! as_asked {
    ($($method:ident($($argument:ident: $type:ty),*), $owned:expr;)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            let (inner, visitor) = self.part(visitor, $owned)?;
            inner.$method($($argument,)* visitor)
        }
    )*};
}

/// Integers that `deserialize_any` has no room for.
macro_rules! wide {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            if self.key {
                return self.inner.$method(visitor);
            }
            let raw = <&RawValue>::deserialize(self.inner)?;
            let json = match raw.get() {
                text if text.len() > LONG => return Err(D::Error::custom("expected an integer")),
                text => text,
            };
            let mut json = serde_json::Deserializer::from_str(json);
            Deserializer::$method(&mut json, visitor).map_err(D::Error::custom)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Metered<'_, D> {
    type Error = D::Error;

    as_any! {
        deserialize_bool(), true;
        deserialize_i8(), true;
        deserialize_i16(), true;
        deserialize_i32(), true;
        deserialize_i64(), true;
        deserialize_u8(), true;
        deserialize_u16(), true;
        deserialize_u32(), true;
        deserialize_u64(), true;
        deserialize_f32(), true;
        deserialize_f64(), true;
        deserialize_unit(), true;
        deserialize_unit_struct(name: &'static str), true;
        deserialize_seq(), true;
        deserialize_map(), true;
        deserialize_tuple(len: usize), false;
        deserialize_tuple_struct(name: &'static str, len: usize), false;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]), false;
    }

    as_asked! {
        deserialize_any(), true;
        deserialize_char(), true;
        deserialize_str(), true;
        deserialize_string(), true;
        deserialize_bytes(), true;
        deserialize_byte_buf(), true;
        deserialize_option(), true;
        deserialize_newtype_struct(name: &'static str), true;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]), true;
        deserialize_identifier(), false;
    }

    wide! { deserialize_i128 deserialize_u128 }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! scalars {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )*};
}

macro_rules! texts {
    ($($method:ident: $type:ty,)*) => {$(
        fn $method<E: Error>(self, text: $type) -> Result<V::Value, E> {
            self.copied(text.len())?;
            if text.len() <= LONG {
                return self.inner.$method(text);
            }
            self.inner.$method(text).map_err(|error: Brief| E::custom(error))
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Metered<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    scalars! {
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
    }

    texts! {
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        let items = Items { inner: self.with(items), growth: Growth::default() };
        self.inner.visit_seq(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        let entries = Entries { inner: self.with(entries), growth: Growth::default(), key: 0 };
        self.inner.visit_map(entries)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        let variant = self.with(variant);
        self.inner.visit_enum(variant)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Metered<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// The items of a list.
struct Items<'a, A> {
    inner: Metered<'a, A>,
    growth: Growth,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Items<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let size = size_of::<S::Value>();
        let seed = self.inner.item(seed, size);
        let item = self.inner.inner.next_element_seed(seed)?;
        let Metered { owned, allowance, .. } = self.inner;
        if item.is_some() && owned && !self.growth.push(size, allowance) {
            return Err(A::Error::custom(EXCEEDED));
        }
        Ok(item)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.inner.size_hint()
    }
}

/// The entries of a map, or the fields of a struct.
struct Entries<'a, A> {
    inner: Metered<'a, A>,
    growth: Growth,
    /// The bytes of the last key.
    key: usize,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.key = size_of::<S::Value>();
        let mut seed = self.inner.item(seed, self.key);
        seed.key = true;
        self.inner.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let size = size_of::<S::Value>();
        let seed = self.inner.item(seed, size);
        let value = self.inner.inner.next_value_seed(seed)?;
        let Metered { owned, allowance, .. } = self.inner;
        if owned && !self.growth.insert(self.key + size, allowance) {
            return Err(A::Error::custom(EXCEEDED));
        }
        Ok(value)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Metered<'a, A> {
    type Error = A::Error;
    type Variant = Metered<'a, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let mut seed = self.item(seed, usize::MAX);
        seed.key = true;
        let around = self.with(());
        let (name, variant) = self.inner.variant_seed(seed)?;
        Ok((name, around.with(variant)))
    }
}

/// A variant's content, read by a visitor.
struct Content<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Content<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        // Of known length, so that its items lie in the variant itself.
        deserializer.deserialize_tuple(0, self.0)
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Metered<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.newtype_variant_seed(Content(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.newtype_variant_seed(Content(visitor))
    }
}
