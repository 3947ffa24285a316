"""predict() and predict_curve(): what they refuse, what the widgets say, and the forms in Chromium."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from playwright.sync_api import sync_playwright

import d2l_utils as d2l

modules = [importlib.import_module(f"d2l_utils.book.{name}") for name in ("predict", "quiz")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
