"""A module of tasks that ends every process that imports it."""

import os

os._exit(9)
